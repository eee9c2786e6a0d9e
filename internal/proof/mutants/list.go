package main

const onRedis = "./internal/thirdparty/onredis"

var mutants = []mutant{
	// The window.
	{"expires one instant too late", "internal/window/window.go", "if now-w.oldest() >= s.Window {", "if now-w.oldest() > s.Window {", "./internal/window", ""},
	{"a group takes events for one instant too long", "internal/window/window.go", "} else if last-w.first >= s.Bucket && last > w.last {", "} else if last-w.first > s.Bucket && last > w.last {", "./internal/window", ""},
	{"what has expired is not forgotten", "internal/window/window.go", "	w.gone = w.closedAt(g, k-1).upto\n", "	w.gone = w.gone.Plus(Counts{})\n", "./internal/window", ""},
	{"one less is admitted than fits", "internal/window/judge.go", "v.Allowed = v.Now <= capacity && n <= capacity-v.Now", "v.Allowed = v.Now <= capacity && n < capacity-v.Now", "./internal/window", ""},
	{"waits for one event too many", "internal/window/window.go", "need := w.Counts().Admitted - limit\n", "need := w.Counts().Admitted - limit + 1\n", "./internal/window", ""},
	{"a refund is lost", "internal/window/window.go", "		removed = min(was, end.Admitted-before.Admitted)\n", "		removed = 0 * (end.Admitted - before.Admitted)\n", "./internal/window", ""},
	{"a refund goes to the next group", "internal/window/window.go", "i = w.search(g, func(c group) bool { return c.last >= at })", "i = w.search(g, func(c group) bool { return c.last > at })", "./internal/window", ""},
	{"groups of one word lose what was declined", "internal/window/closed.go", "if w.short > 0 && (c.Declined > 0 || c.Admitted>>w.short > 0) {", "if w.short > 0 && c.Admitted>>w.short > 0 {", "./internal/window", ""},
	{"a capacity is rounded to the nearest", "internal/window/capacity.go", "return uint64(x + min(x*1e-15, 0.25))", "return uint64(x + 0.5)", ".", ""},
	{"the law passes the hard capacity by one", "internal/window/suppress.go", "n <= l.Hard-c.Admitted }", "n <= l.Hard-c.Admitted+1 }", "./internal/window .", ""},
	{"the law takes a full window for calm", "internal/window/suppress.go", "if float64(c.Observed()) < calm*capacity ||", "if float64(c.Observed()) <= capacity ||", "./internal/window .", ""},

	// The cells.
	{"a cell expires one too early", "internal/cells/cells.go", "from := w.place(w.Grid.number)", "from := w.place(w.Grid.number - 1)", "./internal/cells", ""},
	{"the newest cell expires one instant too late", "internal/cells/cells.go", "if now-w.last >= w.Grid.window { // the older", "if now-w.last > w.Grid.window { // the older", "./internal/cells", ""},
	{"a cell begins one instant too late", "internal/cells/grid.go", "	if x < g.bucket {\n", "	if x <= g.bucket {\n", "./internal/cells", ""},
	{"a division that is rounded up is not corrected", "internal/cells/grid.go", "		q--\n", "", "./internal/cells", ""},
	{"a window may count for less than its length", "internal/cells/grid.go", "	size := (length-1)/n + 1\n	if", "	size := length / n\n	if", "./internal/cells", ""},
	{"a cell of four bits holds 16", "internal/cells/cells.go", "if n <= 15 && *word>>shift&15+n <= 15 {", "if n <= 15 && *word>>shift&15+n <= 16 {", "./internal/cells", ""},
	{"cells that expire are taken for the next ones", "internal/cells/cells.go", "uint(i)/perWord, uint(i)%perWord", "uint(i)/perWord, uint(i)%perWord+1", "./internal/cells", ""},
	{"a cell of 16 bits holds 65536", "internal/cells/cells.go", "+n < 1<<16 {", "+n <= 1<<16 {", "./internal/cells", "TestCellsAtTheirWidth"},
	{"wide cells lose what was declined", "internal/cells/cells.go", "		if d.words != nil {\n			d.change(i, c.Declined)\n		}\n	}\n}", "		if d.words != nil {\n			d.change(i, 0)\n		}\n	}\n}", "./internal/cells", ""},
	{"a refund goes to the next cell", "internal/cells/cells.go", "			i = w.before(from)\n", "			i = w.before(from + w.Grid.bucket - 1)\n", "./internal/cells", ""},
	{"waits for one cell too many", "internal/cells/cells.go", "if admitted -= a.get(w.place(before)); admitted <= limit {", "if admitted -= a.get(w.place(before)); admitted < limit {", "./internal/cells", ""},

	// The table of Local and its hot key.
	{"a call may take the entry of another key", "internal/keys/table.go", "	if !hd.t.isKey(hd.ix.memory, hd.e, key) {", "	if false {", "./internal/keys", "TestKeysOfEqualHashAreApart"},
	{"keys that move are not marked", "internal/keys/shard.go", "		hd.e.length = unused // whoever", "		hd.e.length += 0 // whoever", "./internal/keys", "TestMovedKeysAreFound"},
	{"an older index is asked for pages that it does not have", "internal/keys/table.go", "		if int(hd.h>>pageBits) >= len(hd.ix.pages) {\n", "		if false {\n", "./internal/keys", "TestIndexOfBefore"},
	{"two pages are at one place", "internal/keys/chunk.go", "	c.rest = c.rest[n:]\n", "", "./internal/keys", "TestPagesOfChunks"},
	{"one that waits for an entry is not woken", "internal/keys/lock.go", "was&waiting != 0 {", "was&waiting != 0 && word > 1<<31 {", "./internal/keys", "TestWaitersAreWoken"},
	{"a hot key of Local admits one too many", "internal/keys/hot.go", "return word, word <= f.room", "return word, word <= f.room+1", "./internal/keys", ""},
	{"additions beyond what fits are counted", "internal/keys/hot.go", "c := window.Counts{Admitted: min(word, f.room)}", "c := window.Counts{Admitted: word}", "./internal/keys", "TestHotKeyCountsWhatFits"},
	{"a hot key takes events for too long", "internal/keys/hot.go", "	case now >= f.Closes || capacity", "	case capacity", "./internal/keys .", ""},
	{"what a hot key has counted is lost", "internal/keys/hot.go", "		hd.join(max(f.Last, min(now, f.Closes-1)), c)\n", "", "./internal/keys", ""},
	{"a hot key forgets when its last event was", "internal/keys/hot.go", "hd.join(max(f.Last, min(now, f.Closes-1)), c)", "hd.join(f.Last, c)", "./internal/keys", ""},
	{"a key that was used since makes room for a new one", "internal/keys/order.go", "used > when {", "used < when {", "./internal/keys", ""},
	{"keys go when they are half as idle as they must be", "internal/keys/shard.go", "if hd.settle(); now-hd.last() >= t.idle {", "if hd.settle(); now-hd.last() >= 0 {", "./internal/keys", ""},

	{"a hot key under Suppressed admits what was judged before others", "internal/keys/hot.go", "		if f.word.CompareAndSwap(word, word+n) {\n			v.Now = f.outlook", "		if f.word.Add(n) > 0 {\n			v.Now = f.outlook", "./internal/keys", "TestHotKeySuppressedAtItsBound"},
	{"a hot key under Suppressed trusts its hint", "internal/cells/outlook.go", "hint > 0 && calm(hint-1) {", "false {", "./internal/cells", ""},
	{"what has left the recent part of an open window counts", "internal/cells/outlook.go", "recent - e.old\n", "recent\n", "./internal/cells", ""},

	// The table of Hybrid and its hot key.
	{"a hot key of Hybrid admits one too many", "internal/table/hot.go", "|| n > capacity-f.Reserve-have {", "|| n > capacity-f.Reserve-have+1 {", "./hybridlimit", ""},
	{"a hot key of Hybrid takes events for too long", "internal/table/hot.go", "if now >= f.Closes || n > maxAdded-added {", "if n > maxAdded-added {", "./hybridlimit", ""},
	{"what a hot key of Hybrid has counted is lost", "internal/table/hot.go", "f.added(f.word.Swap(taken)); n > 0 {", "f.added(f.word.Swap(taken)); n > 1<<40 {", "./internal/table ./hybridlimit", ""},
	{"idle keys of Hybrid go too soon", "internal/table/shard.go", "if now-last(sh.State(h)) >= sh.table.idle {", "if now-last(sh.State(h)) >= 0 {", "./internal/table", ""},

	{"a closed table does not tell of its states", "internal/table/table.go", "if sh.entry(h).length != unusedEntry {", "if false {", "./hybridlimit", "TestCommitDuringClose"},

	// Local.
	{"several limits record what one of them denies", "local_bound.go", "		case allowed:\n			counts.Admitted = p.cost\n", "		case p.v.Allowed:\n			counts.Admitted = p.cost\n", ".", ""},
	{"several limits tell the shorter wait", "internal/window/judge.go", "!v.Allowed && v.Wait <= t.Wait:", "!v.Allowed && v.Wait >= t.Wait:", ".", "TestMulti"},
	{"a reservation is settled twice", "reservation.go", "	r.settled = true\n", "", ".", ""},
	{"an expired reservation is refunded once more by a commit", "reservation.go", "	r.charged = n\n", "", ".", ""},
	{"policies share their keys", "local_bound.go", "return group + key", "return key", ".", ""},
	{"a wait does not look at what is ahead of it", "wait.go", "window.SumOf(ahead, n)", "window.SumOf(0, n)", ".", "TestWaitDeadline"},
	{"a line that declines does not pace itself", "wait.go", "			wait = min(wait, b.pace(&d, n))\n", "", ".", "TestWaitInACrowd"},
	{"a call of All locks as it is asked", "local_bound.go", "	slices.SortStableFunc(parties, lockOrder)\n", "", ".", "TestAllWaits"},
	{"asks for the same window are judged one by one", "local_bound.go", "			of.cost = window.SumOf(of.cost, p.cost)\n", "			of.cost = max(of.cost, p.cost)\n", ".", "TestAll"},
	{"a call of All that is refused keeps what it has reserved", "all.go", "			return d, giveBack(nil)\n", "			return d, nil\n", "./hybridlimit", "TestAllOfOtherProviders"},
	{"a policy in shadow refuses a call of All", "all.go", "		if p.Shadow {\n", "		if false {\n", ".", "TestAllInShadow"},
	{"All does not count for its policies", "all.go", "			p.policy.count(p.key, &d, err)\n", "", ".", "TestPolicyVerbs"},
	{"calls of AllowMany for a cold key wait one after the other", "hybridlimit/many.go", "if len(queue) > 1 {", "if len(queue) > 1<<30 {", "./hybridlimit", "TestAllowManyWaitsTogether"},
	{"a denial by a policy is said of its provider, too", "sloglimit/sloglimit.go", "	mine := min(fresh, left[strategy]-late)\n", "	mine := min(fresh, 0)\n", "./sloglimit", "TestPoliciesAndProvider"},
	{"a plain key is taken for one of a policy", "internal/groupkey/groupkey.go", "if key != \"\" && key[0] == mark[0] {", "if false {", "./hybridlimit", "TestCountsAreNotShared"},
	{"two prefixes share their keys", "internal/redisproto/names.go", "if n := strings.Count(prefix, \":\"); n > 0 {", "if n := 0; n > 0 {", "./hybridlimit", "TestCountsAreNotShared"},

	// The lease and Hybrid.
	{"an account admits one more than it has on lease", "internal/lease/decide.go", "case fresh && n <= a.budget && (capacity", "case fresh && n <= a.budget+1 && (capacity", "./internal/lease ./hybridlimit", ""},
	{"the ledger grants one more than is free", "internal/lease/ledger.go", "	free := a.Capacity - min(a.Capacity, r.taken)\n", "	free := a.Capacity - min(a.Capacity, r.taken) + 1\n", "./internal/lease ./hybridlimit", ""},
	{"a lost answer loses what it settled", "internal/lease/message.go", "a.exchange.lost, a.unsettled.sent = false, false, true, 0\n", "a.unsettled.groups, a.unsettled.sent = false, false, nil, 0\n", "./internal/lease ./hybridlimit", ""},
	{"a message that comes again counts again", "internal/lease/ledger.go", "	done := excess(h.used, a.Base)\n", "	var done window.Counts\n", "./internal/lease ./hybridlimit", ""},
	{"what a policy admits leaves the lease as it was", "internal/lease/offline.go", "	a.budget -= fromLease\n", "", "./hybridlimit", "TestFallbackUsesUp"},
	{"a commit above the estimate leaves the lease as it was", "internal/lease/reserved.go", "	if c.Added > c.Removed { // what the call takes", "	if c.Added > c.Removed && c.Added == 0 { // what the call takes", "./hybridlimit", "TestCommitTakesFromTheLease"},
	{"a lowered rate leaves the lease as it was", "internal/lease/message.go", "	a.budget -= min(a.budget, excess)\n", "", "./hybridlimit", "TestLoweredRate"},
	{"a fast clock makes what it settles too old", "internal/lease/lease.go", "return max(0, now-at-elapsed/clockError) / t.Micro", "return max(0, now-at-0*elapsed) / t.Micro", "./internal/lease", "TestFastClock"},
	{"what a message has told is admitted again", "internal/lease/unsettled.go", "		u.groups[i].charged = false\n", "		u.charged += u.groups[i].Admitted\n", "./internal/lease", "TestWindowLease|TestBound"},
	{"what leaves the holder's window is admitted again too early", "internal/lease/lease.go", "return t.Window + t.Window/clockError + t.Micro }", "return t.Window - t.Window/clockError }", "./internal/lease", "TestWindowLease|TestBound"},
	{"the ledger forgets a lease when it ends", "internal/lease/ledger.go", "now >= h.until+s.Window {", "now >= h.until {", "./internal/lease", "TestKilledAtTheEnd"},
	{"the ledger heeds a message that is late", "internal/lease/ledger.go", "	if a.Seq <= h.seq {\n", "	if a.Seq == 0 {\n", "./internal/lease", "TestLateMessages"},
	{"what is kept is admitted again though its room is gone", "internal/lease/message.go", "	if excess > a.budget {", "	if excess > a.budget && excess == 0 {", "./internal/lease", "TestRoomIsGone"},
	{"the life of a lease counts from its answer", "internal/lease/message.go", "a.leaseEnd = x.sentAt + ", "a.leaseEnd = now + ", "./internal/lease", "TestLeaseEnds"},
	{"turns have no pace", "internal/lease/turns.go", "	pool := min(free, uint64(max(0, math.Floor(burst-paced/per))))\n", "	pool := free\n", "./internal/lease", "TestTurnsHaveAPace"},
	{"a holder wants something for ever", "internal/lease/turns.go", "o.want > 0 && now < o.until {", "o.want > 0 {", "./internal/lease", "TestSilentHolder"},
	{"a holder that was away for long makes up for all of it", "internal/lease/turns.go", "	least -= min(least, max(", "	least -= max(least, max(", "./internal/lease", "TestTurnsForget"},
	{"the asker always has the turn", "internal/lease/turns.go", "			pool -= min(pool, t.others[i].want)\n", "", "./internal/lease", "TestTurnOfAnother"},
	{"what was granted in turns and given back counts", "internal/lease/ledger.go", "	t.me.granted -= min(t.me.granted, unused)\n", "", "./internal/lease", "TestTurnsGivenBack"},
	{"traffic is taken for calls that wait", "internal/lease/waits.go", "	case w.promised.holds(m.Now):\n", "	case m.Now > 0:\n", "./internal/lease", "TestWaits"},
	{"what others had on lease counts for the longest life", "internal/lease/offline.go", "	return min(a.others, uint64(each", "	return max(a.others, uint64(each", "./hybridlimit", "TestShareAfter"},
	{"a lowered rate is noticed when the lease is renewed", "internal/lease/decide.go", "	if c.bound(m.Terms) < a.ceiling && a.Fresh(m.Now) {\n", "	if false {\n", "./hybridlimit", "TestLoweredRate"},
	{"many keys make a large lease long", "internal/lease/pace.go", "4*p.Near, min(renew, t.Window))", "4*p.Near, renew)", "./internal/lease", "TestPace"},
	{"several limits take from a lease that another does not have", "hybridlimit/keeper.go", "				j.record(t.Allowed)", "				j.record(true)", "./hybridlimit", "TestMulti"},
	{"a call of All takes from a limit although another refuses", "hybridlimit/keeper.go", "		case allowed:\n			j.reservation", "		case p.decision.Allowed:\n			j.reservation", "./hybridlimit", "TestAllIsAllOrNothing"},
	{"a call of All on Hybrid locks as it is asked", "hybridlimit/all.go", "SortStableFunc(parties, lockOrder)", "SortStableFunc(parties[:1], lockOrder)", "./hybridlimit", "TestAllWaitsInNoCircle"},
	{"a server that is gone has all limits of a call fail", "hybridlimit/all.go", "p.key != first.key &&", "false &&", "./hybridlimit", "TestAllOnSeveralServers"},

	{"what others admit without Redis counts twice", "internal/lease/offline.go", "max(share, sum(p.known, times(others, min(p.unheard, p.policy))))", "max(share-share, sum(p.known, times(others, p.policy)))", "./internal/lease", "TestAlone"},
	{"an instance without Redis takes the share of all", "internal/lease/offline.go", "sum(sum(p.before, p.own), times(others, p.policy))", "sum(p.before, p.own)", "./internal/lease", "TestAlone"},
	{"a key that is due after the wheel has gone round is forgotten", "internal/lease/schedule.go", "			case e.due > upto:\n				s.place(e)\n", "			case e.due > upto:\n", "./internal/lease", "TestScheduleTicks"},
	{"the simulator settles keys when they are not due", "cmd/trypema/internal/sim/exchange.go", "	due := k.Due(at)\n", "	due := at.Now\n", "./cmd/trypema/internal/sim", "TestSameMessages"},
	{"groups that the ledger may have change their order", "internal/lease/unsettled.go", "			if j > i+1 && (p.told || q.told) {\n", "			if false {\n", "./internal/lease", "TestMergeKeepsTheOrder"},
	{"an outage is taken for load", "internal/lease/schedule.go", "max(0, len(s.ready)-s.unreachable)", "len(s.ready)", "./hybridlimit", "TestOutageIsNoLoad"},

	{"without Redis, several limits are not recorded", "hybridlimit/keeper.go", "j.decideOffline(lease.Record)", "j.decideOffline(lease.Try)", "./hybridlimit", "TestMultiOutage"},
	{"a machine that was suspended keeps its leases", "hybridlimit/suspension.go", "s.lost < window/2 {", "s.lost < window<<20 {", "./hybridlimit", "TestSuspended"},

	// Redis.
	{"each instance enforces the whole of several limits without Redis", "redislimit/keeper.go", "	return m.fail.share\n", "	return m.fail.whole\n", "./hybridlimit", "TestMultiOutage"},
	{"the first call that does not fit is told that it does", "redislimit/absolute.go", "case uint64(i) < fit:", "case uint64(i) <= fit:", "./redislimit", ""},
	{"a call that Redis admitted is not remembered for FailLocal", "redislimit/limiter.go", "		case !record || l.local == nil:\n", "		case !record || l.local == nil || n > 0:\n", "./redislimit", ""},
	{"the script expires one µs too late", "internal/redisproto/lua/window.lua", "local live = now - last < window\n", "local live = now - last <= window\n", onRedis, "TestTwin"},
	{"the script joins the newest group by another's bucket", "internal/redisproto/lua/load.lua", "now < first + bucket and ", "", "./internal/thirdparty/onmodel", "TestRedisMixed"},
	{"mend.lua forgets what it could keep", "internal/redisproto/lua/mend.lua", "      if not counts then admitted", "      if true then admitted", "./internal/thirdparty/onmodel", "TestRedisAfterBrokenWindows"},
	{"the script forgets the oldest group's refund", "internal/redisproto/lua/commit.lua", "if i == head then oldest_admitted = oldest_admitted + more end", "", onRedis, "TestTwin|TestCommitInTheOldestGroup"},
	{"several limits record in the first window alone", "internal/redisproto/lua/multi.lua", "        limit.record(fit * cost, 0)\n", "        if limit == limits[1] then limit.record(fit * cost, 0) end\n", onRedis, "TestConformance/redis/go-redis_Absolute_multi/AllOrNothing"},

	// In front.
	{"Retry-After is rounded down", "httplimit/headers.go", "	if d%time.Second > 0 {\n", "	if d%time.Second < 0 {\n", "./httplimit", ""},
}
