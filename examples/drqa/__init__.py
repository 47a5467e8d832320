"""DrQA over compressed word vectors."""
