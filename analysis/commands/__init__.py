"""What each command does, one file a topic: its options, the run, what it stores and prints."""
