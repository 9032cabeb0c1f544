"""The rights that `keyturn policy` prints, held against what whole runs really do under them."""
