"""A tenant of our own, whose requests are known: does the whole chain still count them?"""
