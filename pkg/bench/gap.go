package main

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// sighting is a record's handling by a member of a group.
type sighting struct {
	number int   // of the record; those of a key are as many apart as there are keys
	at     int64 // ns since 1970
}

// upset is what a phase of a run did to the group's work.
type upset struct {
	gap   time.Duration // the longest that a key waited between two records, beyond how they were sent
	again int           // records that had been handled before
}

// upsets looks at a run's phases, given by their begins. What comes before the first counts as
// nothing; lost records were sent and never handled. sent has the times of all records.
func upsets(sent []int64, keys int, seen []sighting, begins []int64) (all []upset, lost int) {
	all = make([]upset, len(begins))
	phase := func(at int64) *upset {
		i := sort.Search(len(begins), func(i int) bool { return begins[i] > at }) - 1
		if i < 0 {
			return new(upset)
		}
		return &all[i]
	}
	seen = slices.SortedFunc(slices.Values(seen), func(a, b sighting) int { return cmp.Compare(a.at, b.at) })
	first := make([]int64, len(sent))
	for _, s := range seen {
		if first[s.number] == 0 {
			first[s.number] = s.at
		} else {
			phase(s.at).again++
		}
	}
	for key := range min(keys, len(sent)) {
		before := -1
		for n := key; n < len(sent); n += keys {
			if first[n] == 0 {
				lost++
				continue
			}
			if before >= 0 {
				p := phase(first[n])
				p.gap = max(p.gap, time.Duration(first[n]-first[before]-(sent[n]-sent[before])))
			}
			before = n
		}
	}
	return all, lost
}
