"""Everything that subclasses or patches Faust or aiokafka, and nothing else; see README.md beside this file."""
