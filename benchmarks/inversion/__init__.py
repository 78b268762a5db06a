"""Measures the cost of training a word, and how well the word works."""
