"""The commands of `streamproc score`, one a module, and what they share: reading folders of games, and printing."""
