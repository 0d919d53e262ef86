"""Series of what happened lately: from what workers have counted to one value every two seconds, for an hour."""
