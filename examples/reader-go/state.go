package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
)

// Status says what a row is good for. Present and Stale rows have a state.
type Status string

const (
	Present  Status = "PRESENT"
	Stale    Status = "STALE"
	NotFound Status = "NOT_FOUND"
	Invalid  Status = "INVALID"
)

const (
	headerBytes = 128
	version     = 2
	dtypeInt8   = 2
	recordBytes = 20
)

// Model is what states must be of.
type Model struct {
	ID      string // 16 of 0-9a-f
	Layers  int
	KVHeads int
	HeadDim int
	Dim     int // d_model, the embedding's
	Context int
}

// LoadModel reads a bundle's manifest.json.
func LoadModel(bundle string) (Model, error) {
	path := filepath.Join(bundle, "manifest.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return Model{}, fmt.Errorf("the bundle %s cannot be read: %w", bundle, err)
	}
	var manifest struct {
		ModelID string `json:"model_id"`
		Shape   struct {
			Layers  int `json:"layers"`
			Dim     int `json:"d_model"`
			Heads   int `json:"heads"`
			KVHeads int `json:"kv_heads"`
			Context int `json:"context"`
		} `json:"shape"`
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return Model{}, fmt.Errorf("%s is no manifest: %w", path, err)
	}
	s := manifest.Shape
	if len(manifest.ModelID) != 16 || s.Heads < 1 || s.KVHeads < 1 || s.Layers < 1 || s.Dim < s.Heads {
		return Model{}, fmt.Errorf("%s is no manifest of a model: model_id %q, shape %+v", path, manifest.ModelID, s)
	}
	return Model{manifest.ModelID, s.Layers, s.KVHeads, s.Dim / s.Heads, s.Dim, s.Context}, nil
}

// EmbeddingBytes is how much of a value holds the header and the embedding.
func (m Model) EmbeddingBytes() int { return headerBytes + 2*m.Dim }

func (m Model) slotBytes() int { return recordBytes + 2*m.Layers*m.KVHeads*(m.HeadDim+1) }

// Event is one engagement, as a slot holds it.
type Event struct {
	TimestampMs int64  `json:"timestamp_ms"`
	ItemID      int64  `json:"item_id"`
	Action      uint16 `json:"action"`
	Surface     uint16 `json:"surface"`
}

// Slot is an event with its keys and values [2][layers][kv_heads][head_dim] and their scales [2][layers][kv_heads].
type Slot struct {
	Event  Event     `json:"event"`
	KV     []int8    `json:"kv"`
	Scales []float32 `json:"scales"`
}

// Row is what a value is worth.
type Row struct {
	User      string    `json:"user"`
	Status    Status    `json:"status"`
	Why       string    `json:"why,omitempty"`
	AgeMs     int64     `json:"age_ms"`
	Length    int       `json:"length"`
	Embedding []float32 `json:"embedding,omitempty"`
	Slots     []Slot    `json:"slots,omitempty"`
}

// ReadState decodes and verifies what Redis returned for a user. It never fails: a value that cannot be trusted is an INVALID row.
//
// With embeddingOnly the value may end behind the embedding. maxAgeMs of 0 means that no age is too old.
func ReadState(user string, value []byte, m Model, nowMs, maxAgeMs int64, embeddingOnly bool) Row {
	invalid := func(format string, args ...any) Row {
		return Row{User: user, Status: Invalid, Why: fmt.Sprintf(format, args...)}
	}
	if len(value) == 0 {
		return Row{User: user, Status: NotFound, Why: "no state"}
	}
	if len(value) < headerBytes || !bytes.Equal(value[:4], []byte("SLPS")) || value[4] != version {
		return invalid("%d bytes that are no state of version %d", len(value), version)
	}
	u16 := func(at int) int { return int(binary.LittleEndian.Uint16(value[at:])) }
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(value[at:]) }
	i64 := func(at int) int64 { return int64(binary.LittleEndian.Uint64(value[at:])) }

	begin, dim := u16(6), u16(62)
	if begin != headerBytes+2*dim || len(value) < begin {
		return invalid("%d bytes, its header speaks of %d", len(value), begin)
	}
	checksum := crc32.Update(crc32.ChecksumIEEE(value[:124]), crc32.IEEETable, value[headerBytes:begin])
	if checksum != u32(124) {
		return invalid("the header's checksum does not match")
	}
	if id := hex.EncodeToString(value[8:16]); id != m.ID {
		return invalid("made by model %s, not %s", id, m.ID)
	}
	sizes := [...]int{u16(56), u16(58), u16(60), int(u32(64)), int(value[68])}
	if want := [...]int{m.Layers, m.KVHeads, m.HeadDim, m.slotBytes(), dtypeInt8}; sizes != want {
		return invalid("layers, kv heads, head dim, slot bytes, dtype are %v, the model has %v", sizes, want)
	}
	switch value[5] {
	case 1:
	case 2:
		return Row{User: user, Status: NotFound, Why: "the user was forgotten"}
	default:
		return invalid("kind %d", value[5])
	}
	length, capacity := u16(52), u16(54)
	if dim != m.Dim || length == 0 || length > capacity || length > m.Context {
		return invalid("embedding of %d, length %d of %d, the model has %d and %d", dim, length, capacity, m.Dim, m.Context)
	}
	row := Row{User: user, Status: Present, AgeMs: max(0, nowMs-i64(80)), Length: length}
	row.Embedding = make([]float32, dim)
	for i := range row.Embedding {
		row.Embedding[i] = half(binary.LittleEndian.Uint16(value[headerBytes+2*i:]))
	}
	if !embeddingOnly {
		end := begin + length*m.slotBytes()
		if len(value) < end {
			return invalid("%d bytes, %d slots need %d", len(value), length, end)
		}
		if crc32.ChecksumIEEE(value[begin:end]) != u32(96) {
			return invalid("the slots' checksum does not match")
		}
		row.Slots = make([]Slot, length)
		for i := range row.Slots {
			row.Slots[i] = readSlot(value[begin+i*m.slotBytes():], m)
		}
	}
	if maxAgeMs > 0 && row.AgeMs > maxAgeMs {
		row.Status, row.Why = Stale, fmt.Sprintf("%d ms old, the limit is %d ms", row.AgeMs, maxAgeMs)
	}
	return row
}

func readSlot(at []byte, m Model) Slot {
	heads := 2 * m.Layers * m.KVHeads
	slot := Slot{KV: make([]int8, heads*m.HeadDim), Scales: make([]float32, heads)}
	slot.Event = Event{
		int64(binary.LittleEndian.Uint64(at)),
		int64(binary.LittleEndian.Uint64(at[8:])),
		binary.LittleEndian.Uint16(at[16:]),
		binary.LittleEndian.Uint16(at[18:]),
	}
	for i := range slot.KV {
		slot.KV[i] = int8(at[recordBytes+i])
	}
	for i := range slot.Scales {
		code := at[recordBytes+len(slot.KV)+i]
		slot.Scales[i] = half((uint16(code) + 16) * 64)
	}
	return slot
}

// half is an IEEE 754 half as a float32, exactly.
func half(bits uint16) float32 {
	sign, exponent, fraction := uint32(bits>>15)<<31, uint32(bits>>10)&31, uint32(bits)&1023
	switch exponent {
	case 0: // zero, or subnormal: fraction * 2^-24
		return float32(math.Copysign(math.Ldexp(float64(fraction), -24), 1-2*float64(bits>>15)))
	case 31: // infinity, or not a number
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}
