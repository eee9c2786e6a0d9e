package leak

import (
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func TestAwait(t *testing.T) {
	usual := []string{"testing.(*T).Run", "testing.tRunner.func1"} // what runs this test
	if left := await(patience, usual); left != nil {
		t.Fatalf("left at the beginning: %q", left)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	go wait(begun, end)
	<-begun
	left := await(0, usual)
	if len(left) != 1 || !strings.Contains(left[0], "leak.wait") {
		t.Errorf("left is %q, want one goroutine", left)
	}
	if left := await(0, append(usual, "leak.wait(")); left != nil {
		t.Errorf("left is %q, want none: it is ignored", left)
	}
	time.AfterFunc(20*time.Millisecond, func() { close(end) })
	if left := await(patience, usual); left != nil {
		t.Errorf("left is %q, want none: it ends", left)
	}
}

func wait(begun, end chan struct{}) {
	close(begun)
	<-end
}
