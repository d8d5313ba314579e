"""Policy gate, registry, approvals, audit trail, cards, signature, bill of materials."""
