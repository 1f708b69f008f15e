# The suite as a user without any right who may lock 8 MiB. Two cases need more: they are left out,
# and fail by the name of the limit when they are run all the same.
LARGE=(message::lengths_from_nothing_to_the_largest region::memory_can_be_large)
as_nobody "$TEST" --include-ignored --test-threads=2 --skip "${LARGE[0]}" --skip "${LARGE[1]}"
for case in "${LARGE[@]}"; do
    if as_nobody "$TEST" --include-ignored "$case" >/mnt/share/large.txt 2>&1; then
        fail "$case succeeds with 8 MiB"
    fi
    grep -q 'limits of locked memory' /mnt/share/large.txt || fail "$case does not name the limit"
    echo "test $case ... ignored, needs more memory than the 8 MiB that this user may lock"
done
