"""The model store: fetched, checked, kept and thrown away. Of ours it knows the config's plain files alone."""
