"""Records: which runs there are, train them, keep them, test them again, tabulate them."""
