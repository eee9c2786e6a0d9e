package redisproto

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/window"
)

// Flags of a message.
const (
	whole = 1 << iota
	keeps
	count
	isNew
	lone
)

// Message writes a message as settle.lua reads it.
func Message(m lease.Message) string {
	b := make([]byte, 0, 109+28*len(m.Groups))
	b = binary.LittleEndian.AppendUint64(b, m.Holder)
	b = binary.LittleEndian.AppendUint16(b, uint16(m.Slot))
	for _, x := range []uint64{
		m.Seq, m.Capacity, m.Hold, m.Kept, m.Near, m.Far, m.FarLeast, m.Need, uint64(m.NearLife),
		uint64(m.Brief), uint64(m.HoldLife), m.Waiting,
		m.Base.Admitted, m.Base.Declined,
	} {
		b = append7(b, x)
	}
	flags := byte(0)
	if m.Whole {
		flags |= whole
	}
	if m.Keeps {
		flags |= keeps
	}
	if m.Count {
		flags |= count
	}
	if m.New {
		flags |= isNew
	}
	if m.Lone {
		flags |= lone
	}
	b = append(b, flags)
	for _, g := range m.Groups {
		b = append7(append7(append7(append7(b, uint64(g.Age)), uint64(g.Span)), g.Admitted), g.Declined)
	}
	return string(b)
}

func append7(b []byte, x uint64) []byte {
	var all [8]byte
	binary.LittleEndian.PutUint64(all[:], min(x, 1<<53))
	return append(b, all[:7]...)
}

// ParseMessage reads a message, which must be one: it is for servers that are not Redis.
func ParseMessage(s string) (m lease.Message) {
	b := []byte(s[:10])
	m.Holder, m.Slot, s = binary.LittleEndian.Uint64(b), uint64(binary.LittleEndian.Uint16(b[8:])), s[10:]
	var life, brief, hold uint64
	for _, x := range []*uint64{
		&m.Seq, &m.Capacity, &m.Hold, &m.Kept, &m.Near, &m.Far, &m.FarLeast, &m.Need, &life, &brief, &hold, &m.Waiting,
		&m.Base.Admitted, &m.Base.Declined,
	} {
		*x, s = number7(s), s[7:]
	}
	m.NearLife, m.Brief, m.HoldLife = int64(life), int64(brief), int64(hold)
	m.Whole, m.Keeps, m.Count, m.New = s[0]&whole != 0, s[0]&keeps != 0, s[0]&count != 0, s[0]&isNew != 0
	m.Lone = s[0]&lone != 0
	s = s[1:]
	for ; s != ""; s = s[28:] {
		m.Groups = append(m.Groups, lease.Group{
			Age: int64(number7(s)), Span: int64(number7(s[7:])),
			Counts: window.Counts{Admitted: number7(s[14:]), Declined: number7(s[21:])},
		})
	}
	return m
}

// Log is groups as a reply has them: last event, and running counts from 0 on, at now.
func Log(now int64, groups []lease.Group) string {
	var b []byte
	var upto window.Counts
	for _, g := range groups {
		upto = window.Counts{Admitted: upto.Admitted + g.Admitted, Declined: upto.Declined + g.Declined}
		b = append7(append7(append7(b, uint64(now-g.Age)), upto.Admitted), upto.Declined)
	}
	return string(b)
}

// ReadAnswer takes the answer to one message, of which all says whether it asked for all groups, from a
// reply. With ErrAnswered there is one: what the window holds is then one group that has just ended.
func ReadAnswer(r *Reader, all bool) (a lease.Answer, err error) {
	const most = 1 << 51
	grant := r.Number()
	if grant < 0 {
		return lease.Answer{Stale: true}, r.Err()
	}
	a.Grant = uint64(grant)
	a.Life = r.Number()
	far := r.Number()
	a.Far, a.Lone, a.Slot = far > 0, far == 2, r.Count(1<<16)
	a.Live = window.Counts{Admitted: r.Count(4 * most), Declined: r.Count(4 * most)}
	a.Others, a.Kept = r.Count(4*most), r.Count(4*most)
	a.Before = window.Counts{Admitted: r.Count(4 * most), Declined: r.Count(4 * most)}
	a.After = window.Counts{Admitted: r.Count(4 * most), Declined: r.Count(4 * most)}
	a.Now = r.Number()
	a.Next = r.Number()
	if a.Whole = all; !all {
		return a, r.Err()
	}
	now := r.Number()
	if now == 0 {
		return a, r.Err()
	}
	before := window.Counts{Admitted: r.Count(4 * most), Declined: r.Count(4 * most)}
	var odd error
	a.Groups, odd = readLog(r.Text(), now, before)
	if odd != nil {
		a.Groups = []lease.Group{{Counts: a.Live}}
	}
	return a, cmp.Or(r.Err(), odd)
}

// readLog takes a log of groups apart, from the running counts before them on.
func readLog(log string, now int64, before window.Counts) (groups []lease.Group, err error) {
	if len(log)%21 != 0 {
		return nil, fmt.Errorf("%s the key holds groups of %d bytes in all: %w", notAWindow, len(log), ErrAnswered)
	}
	for last := int64(0); log != ""; log = log[21:] {
		at := int64(number7(log))
		upto := window.Counts{Admitted: number7(log[7:]), Declined: number7(log[14:])}
		if at < last || at > now || upto.Admitted < before.Admitted || upto.Declined < before.Declined {
			return nil, fmt.Errorf("%s the key holds groups that are not in order: %w", notAWindow, ErrAnswered)
		}
		groups = append(groups, lease.Group{Age: now - at, Counts: window.Counts{
			Admitted: upto.Admitted - before.Admitted,
			Declined: upto.Declined - before.Declined,
		}})
		before, last = upto, at
	}
	return groups, nil
}

func number7(s string) uint64 {
	var b [8]byte
	copy(b[:], s[:7])
	return binary.LittleEndian.Uint64(b[:])
}
