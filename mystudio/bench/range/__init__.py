"""What an avatar makes of motion that its scan never showed."""
