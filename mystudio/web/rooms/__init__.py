"""The rooms of the page: a module each, with its routes; none imports another."""
