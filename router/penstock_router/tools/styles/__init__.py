"""How formats write a call: some argument styles, each with what differs between formats."""
