from smallfry.readers.listing import cut, listing, shape_text


def test_text_is_shortened_and_on_one_line():
    assert cut("abcdef", 4) == "abc…"
    assert cut("a\nb", 10) == r"a\nb"
    assert len(cut("\n" * 1000, 50)) <= 50


def test_listing_shows_the_first_names_and_counts_the_rest():
    assert listing(["a", "b"], 100) == "a, b"
    assert listing([f"name{i}" for i in range(2000)], 21) == "name0, name1, name2 and 1,997 more"
    assert listing(["x" * 300], 10) == "x" * 99 + "…"
    assert listing([], 10) == ""


def test_shape_of_many_dimensions_is_shortened():
    assert shape_text((2, 3)) == "[2, 3]"
    assert shape_text((1,) * 5000) == "[1, 1, 1, …] (5,000 dimensions)"
