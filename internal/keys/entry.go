package keys

import (
	"encoding/binary"
	"unsafe"

	"github.com/trypema/trypema/internal/cells"
	"github.com/trypema/trypema/internal/table/slab"
	"github.com/trypema/trypema/internal/window"
)

// entry is a key and its window: 128 bytes, two cache lines, without a pointer; TestEntrySize holds that.
//
// Its lock guards all of it. The text and its length change only while the lock of the shard is held, too:
// so either lock is enough to read them.
type entry struct {
	cells.State
	text   [47]byte
	length uint8
}

const (
	inText   = 47
	longText = inText + 1 // the length of a key that does not fit: the text says where it is
	unused   = inText + 2 // the length of an entry without a key
)

// fine returns the window of a key whose buckets are too many for cells. It takes the place of all of State
// but its first word, and of some of the text.
func (e *entry) fine() *window.Window {
	return (*window.Window)(unsafe.Add(unsafe.Pointer(e), stateHead))
}

const (
	stateHead = 8
	fineText  = stateHead + unsafe.Sizeof(window.Window{}) - unsafe.Sizeof(cells.State{}) // of the text
)

// memory is what the entries of an index have elsewhere.
type memory struct {
	cells cells.Memory
	texts cells.Arena[byte]
	fine  groups
}

// room returns the part of an entry that holds the key.
func (t *Table) room(e *entry) []byte {
	if t.fine {
		return e.text[fineText:]
	}
	return e.text[:]
}

// isKey reports whether an entry is that of a key.
func (t *Table) isKey(m *memory, e *entry, key string) bool {
	if n := int(e.length); n == len(key) && n < longText {
		return string(t.room(e)[:n]) == key
	}
	if e.length != longText {
		return false
	}
	ref, n := where(t.room(e))
	return n == len(key) && string(m.texts.Block(ref, slab.Class(n))[:n]) == key
}

// hasShort reports whether an entry is that of a key, if the text is in the entry.
func hasShort(e *entry, key string) bool {
	return int(e.length) == len(key) && len(key) <= inText && string(e.text[:len(key)]) == key
}

// textOf returns the key of an entry.
func (t *Table) textOf(m *memory, e *entry) []byte {
	if e.length < longText {
		return t.room(e)[:e.length]
	}
	ref, n := where(t.room(e))
	return m.texts.Block(ref, slab.Class(n))[:n]
}

// setText makes an entry that of a key.
func (t *Table) setText(m *memory, e *entry, key string) {
	room := t.room(e)
	if len(key) <= len(room) {
		e.length = uint8(copy(room, key))
		return
	}
	ref := m.texts.Alloc(slab.Class(len(key)))
	copy(m.texts.Block(ref, slab.Class(len(key))), key)
	binary.LittleEndian.PutUint32(room, uint32(ref))
	binary.LittleEndian.PutUint32(room[4:], uint32(len(key)))
	e.length = longText
}

// dropText makes an entry one without a key.
func (t *Table) dropText(m *memory, e *entry) {
	if e.length == longText {
		ref, n := where(t.room(e))
		m.texts.Free(ref, slab.Class(n))
	}
	e.length = unused
}

// where is a long key.
func where(room []byte) (ref slab.Ref, length int) {
	return slab.Ref(binary.LittleEndian.Uint32(room)), int(binary.LittleEndian.Uint32(room[4:]))
}
