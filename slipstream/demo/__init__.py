"""The demo: the whole path on real events, watched, verified and measured."""
