"""Commands for people at a terminal: talk to a model, and find out what a machine lacks."""
