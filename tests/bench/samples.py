"""Times, their percentiles, and the tables they are shown in."""

import math

PERCENTS = (50, 95, 99)


def percentile(values, percent):
    """The smallest value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(percent / 100 * len(ordered)) - 1, 0)]


def summary(values):
    return {"n": len(values), **{f"p{p}_ms": round(percentile(values, p), 4) for p in PERCENTS}}


def print_times(title, groups):
    """`groups`: {size: [(label, summary)]}; the ratio is to the first row of each."""
    print(f"\n{title:44}{'n':>5}{'p50':>10}{'p95':>10}{'p99':>10}{'times':>8}")
    for size, rows in groups.items():
        print(size)
        for label, row in rows:
            ratio = row["p50_ms"] / rows[0][1]["p50_ms"]
            print(f"  {label:42}{row['n']:5}" +
                  "".join(f"{row[f'p{p}_ms']:10.2f}" for p in PERCENTS) + f"{ratio:8.2f}")


def print_numbers(title, heads, rows):
    """`rows`: [(label, [number])]."""
    print(f"\n{title:44}" + "".join(f"{head:>18}" for head in heads))
    for label, numbers in rows:
        print(f"  {label:42}" + "".join(
            f"{number:18.1f}" for number in numbers))
