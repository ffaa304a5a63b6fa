"""One module per module of the product, the cases of `fixtures/`, and laws over generated order lives."""
