"""What models answer: the text of an output's JSON, or its numbers, which become text for whoever reads text."""
