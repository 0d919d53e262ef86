from clipper.learning.stores.own_changes import MAX_KEPT, OwnChanges


def test_what_this_process_has_changed_need_not_be_read_again() -> None:
    own = OwnChanges()
    own.follow(7)
    own.commit(8)
    own.commit(9)
    assert own.known(7) == {8, 9}


def test_without_a_follower_or_with_one_that_missed_something_all_is_read() -> None:
    own = OwnChanges()
    own.commit(1)
    assert own.known(-1) == own.known(0) == set()
    own.follow(7)
    own.commit(8)
    assert own.known(6) == set()
    own.distrust()
    assert own.known(7) == set()


def test_a_commit_after_the_cursor_was_read_is_known_the_next_time() -> None:
    own = OwnChanges()
    own.follow(7)
    own.commit(8)
    own.commit(9)
    own.follow(8)
    assert own.known(8) == {9}


def test_what_was_distrusted_stays_so_when_the_follower_was_told_of_less() -> None:
    own = OwnChanges()
    own.follow(7)
    own.commit(8)
    own.distrust()
    own.follow(7)  # it had asked before that commit
    assert own.known(7) == set()


def test_what_is_kept_has_a_bound() -> None:
    own = OwnChanges()
    own.follow(0)
    for revision in range(MAX_KEPT + 5):
        own.commit(revision)
    assert len(own.revisions) <= MAX_KEPT and own.known(0) == set()
