"""Models' outputs: the text of an output's JSON, or its numbers, which become text for readers of text."""
