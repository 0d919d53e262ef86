"""The query workers: started, told, taken over, replaced."""
