package explore

import "testing"

func TestSeedIsFixedUnlessTestsExplore(t *testing.T) {
	t.Setenv("TRYPEMA_SEED", "")
	t.Setenv("TRYPEMA_EXPLORE", "")
	if a, b := Seed(t), Seed(t); a != b {
		t.Errorf("two seeds of one test: %d and %d", a, b)
	}
	if a, b := fixed("TestA"), fixed("TestB"); a == b {
		t.Errorf("two tests have the seed %d", a)
	}
	t.Setenv("TRYPEMA_EXPLORE", "1")
	if a, b := Seed(t), Seed(t); a == b {
		t.Errorf("two explorations have the seed %d", a)
	}
	t.Setenv("TRYPEMA_SEED", "42")
	if s := Seed(t); s != 42 {
		t.Errorf("TRYPEMA_SEED=42, and the seed is %d", s)
	}
}

func TestRuns(t *testing.T) {
	for _, test := range []struct {
		explore, seed string
		want          int
	}{{"", "", 7}, {"1", "", 70}, {"", "5", 1}, {"1", "5", 1}} {
		t.Setenv("TRYPEMA_EXPLORE", test.explore)
		t.Setenv("TRYPEMA_SEED", test.seed)
		few := 7
		if testing.Short() {
			few = 35
		}
		if got := Runs(few, 70); got != test.want {
			t.Errorf("TRYPEMA_EXPLORE=%s TRYPEMA_SEED=%s: %d runs, want %d", test.explore, test.seed, got,
				test.want)
		}
		length := 70
		if test.explore == "" && test.seed == "" {
			length = 7
		}
		if got := Length(few, 70); got != length {
			t.Errorf("TRYPEMA_EXPLORE=%s TRYPEMA_SEED=%s: a length of %d, want %d", test.explore, test.seed, got,
				length)
		}
		if got, want := Size(few, 70), map[string]int{"": 7, "1": 70}[test.explore]; got != want {
			t.Errorf("TRYPEMA_EXPLORE=%s: a size of %d, want %d", test.explore, got, want)
		}
	}
}
