"""The policy pack: what every stack has to keep to, checked at each preview."""
