"""What teaching a word costs, and what the word is worth."""
