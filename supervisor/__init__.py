"""The orchctl daemon: a pure core that decides, a runtime that performs, and an HTTP edge that translates."""
