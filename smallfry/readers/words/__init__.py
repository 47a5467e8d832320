"""Word lists: the words of a matrix's rows, in order, as text of several kinds or JSON."""
