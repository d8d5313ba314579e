"""Training examples: read them, choose shots from them, keep exam questions out of them."""
