"""The programs that deploy Keyturn, against Pulumi's mocks: what they register, and with what."""
