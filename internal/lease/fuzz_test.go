package lease_test

import (
	"reflect"
	"testing"

	"github.com/trypema/trypema/internal/lease"
	"github.com/trypema/trypema/internal/proof/model"
	"github.com/trypema/trypema/internal/redisproto"
	"github.com/trypema/trypema/internal/window"
)

// number is mostly small, sometimes as large as a message can say.
func number(in *model.Tape) uint64 {
	n := uint64(in.Next())
	switch {
	case n < 200:
		return n
	case n < 230:
		return n << (in.Next() % 46)
	default:
		return 1<<53 - (255 - n)
	}
}

// FuzzLedger: whatever holders say, in any order and with any numbers, the ledger grants nothing beyond what
// is left; it counts nothing that was not said, and heeds no message twice. A message is in Redis what was
// meant.
func FuzzLedger(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(model.Noise(seed, 300))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := model.Tape{Data: data}
		s := window.Span{Window: 1000, Bucket: 10}
		var l lease.Ledger
		now, said := int64(1e15), window.Counts{}
		last := map[uint64]uint64{}
		for len(in.Data) > 0 {
			now += int64(model.Pick[uint64](&in, 0, 0, 1, 9, 10, 11, 999, 1000, 1001, number(&in)%5000))
			a := lease.Message{
				Holder: 1 + uint64(in.Next()%4), Seq: number(&in) % 300, Slot: uint64(in.Next()), Capacity: number(&in),
				Hold: number(&in), Near: number(&in), Far: number(&in), Need: number(&in), NearLife: int64(number(&in)),
				Base: window.Counts{Admitted: number(&in), Declined: number(&in)}, Whole: in.Next()%2 == 0,
				Count: in.Next()%2 == 0, New: in.Next()%4 == 0, Keeps: in.Next()%2 == 0, Kept: number(&in), FarLeast: number(&in), Brief: int64(number(&in)),
				HoldLife: int64(number(&in)),
				Waiting:  number(&in) * uint64(in.Next()%2),
			}
			if in.Next() < 200 {
				a.Seq = last[a.Holder] + 1
			}
			for range in.Next() % 4 {
				a.Groups = append(a.Groups, lease.Group{Age: int64(number(&in)), Span: int64(number(&in)), Counts: window.Counts{Admitted: number(&in), Declined: number(&in)}})
			}
			if got := redisproto.ParseMessage(redisproto.Message(a)); !reflect.DeepEqual(got, a) {
				t.Fatalf("a message is %+v, and was %+v", got, a)
			}
			far := int64(number(&in))
			before, _ := l.Live(s, now)
			out := l.Settle(s, now, far, a)
			live, leased := l.Live(s, now)
			if out.Stale {
				if live != before || out.Grant > 0 {
					t.Fatalf("a message that was stale changed %+v to %+v, and was granted %d", before, live,
						out.Grant)
				}
				continue
			}
			last[a.Holder] = a.Seq
			for _, g := range a.Groups {
				said = said.Plus(g.Counts)
			}
			taken := out.Live.Admitted + out.Others + a.Hold
			switch free := a.Capacity - min(a.Capacity, taken); {
			case out.Grant > free:
				t.Fatalf("%d granted of %d that were free, to %+v: %+v", out.Grant, free, a, out)
			case out.Grant > max(a.Near, a.Far, a.Need):
				t.Fatalf("%d granted to %+v", out.Grant, a)
			case out.Next >= 0 && (out.Far || out.Life != a.NearLife+min(out.Next, s.Window/4) || out.Next > 4*s.Window):
				t.Fatalf("a turn in %d, and a life of %d of %d, to %+v", out.Next, out.Life, a.NearLife, a)
			case out.Next >= 0:
			case (!a.Keeps || !out.Far) && out.Life != far && out.Life != a.NearLife || out.Life > max(far, a.NearLife):
				t.Fatalf("a life of %d, of %d or %d", out.Life, far, a.NearLife)
			case live != out.Live || leased != out.Others+a.Hold+out.Grant:
				t.Fatalf("%+v in the window and %d on lease, want %+v", live, leased, out)
			case live.Admitted > said.Admitted || live.Declined > said.Declined:
				t.Fatalf("%+v in the window, and no more than %+v was said", live, said)
			case out.After.Admitted < out.Before.Admitted || out.After.Declined < out.Before.Declined:
				t.Fatalf("running counts go back: %+v", out)
			}
		}
	})
}
