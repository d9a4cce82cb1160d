"""What the command ``ddim`` can do; each module parses its options, calls the library, and prints."""
