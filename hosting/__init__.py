"""What clouds run: packages of the rotation functions, and programs that set up everything round them."""
