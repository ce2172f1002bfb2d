"""Tool calls and reasoning: what a client may ask for, and what a model writes for it.

Protocols use it like this:

1. `definition`: make a `Toolbox` of what the client sent (`Tool.checked` says what is wrong).
2. Give `Conversation.tools` what the template shows: `Toolbox.shown`.
3. `plan = service.text.replies.plan(toolbox, ...)` says how the answer is read. None: nothing has
   to be read, all of it is text, and the token path is that of plain text.
4. Put it into `Options.reply`. `api.prepare.output` then makes an `Output` that reads.
5. A `SequenceListener` pushes tokens into its output as ever; `output.events` is what came of
   each, and after `output.close()` what was still to come: the events of `events`, in order.
   `output.released` is the text among them, so whoever shows text only needs nothing else.
"""
