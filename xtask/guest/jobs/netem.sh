# The same on a bad wire: retransmission works, so what fails on it later is not the device.
for trouble in "delay 2ms" "loss 0.5%" "delay 2ms reorder 75%"; do
    for side in a0 a1; do
        # The words of the trouble are arguments.
        # shellcheck disable=SC2086
        tc qdisc replace dev "$side" root netem $trouble limit 10000
    done
    echo "netem $trouble"
    rping_here 30
done
for side in a0 a1; do
    tc qdisc del dev "$side" root
done
