"""Which FOCUS specification the rows are of."""

VERSION = "1.2"
