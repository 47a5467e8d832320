"""The library against torch, dict, marisa-trie, gensim and the original project."""
