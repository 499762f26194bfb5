package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

const golden = "../../tests/golden"

// Of the golden states: nano.
var nano = Model{"", 2, 1, 32, 64, 256}

type expected struct {
	Header struct {
		ModelID   string `json:"model_id"`
		Length    int    `json:"length"`
		ArrivedMs int64  `json:"arrived_ms"`
	} `json:"header"`
	Embedding []float32 `json:"embedding"`
	Slots     []Slot    `json:"slots"`
}

func load(t *testing.T, name string) ([]byte, expected, Model) {
	t.Helper()
	value, err := os.ReadFile(filepath.Join(golden, name))
	if err != nil {
		t.Fatal(err)
	}
	var want expected
	text, err := os.ReadFile(filepath.Join(golden, name+".expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	model := nano
	model.ID = want.Header.ModelID
	return value, want, model
}

func TestGoldenStates(t *testing.T) {
	for _, name := range []string{"state.bin", "state-full-step.bin", "state-slack.bin"} {
		value, want, model := load(t, name)
		row := ReadState("u", value, model, want.Header.ArrivedMs+40, 0, false)
		if row.Status != Present || row.AgeMs != 40 || row.Length != want.Header.Length {
			t.Errorf("%s: %s, %d ms, %d slots: %s", name, row.Status, row.AgeMs, row.Length, row.Why)
		}
		if !reflect.DeepEqual(row.Embedding, want.Embedding) || !reflect.DeepEqual(row.Slots, want.Slots) {
			t.Errorf("%s: embedding or slots differ", name)
		}
		part := ReadState("u", value[:model.EmbeddingBytes()], model, want.Header.ArrivedMs+40, 30, true)
		if part.Status != Stale || !reflect.DeepEqual(part.Embedding, want.Embedding) || part.Slots != nil {
			t.Errorf("%s: embedding alone: %s: %s", name, part.Status, part.Why)
		}
	}
}

func TestMarkerIsNoState(t *testing.T) {
	value, _, model := load(t, "state-deleted.bin")
	for _, value := range [][]byte{value, nil, {}} {
		if row := ReadState("u", value, model, 0, 0, true); row.Status != NotFound {
			t.Errorf("%s: %s", row.Status, row.Why)
		}
	}
}

func TestFormerVersionIsInvalid(t *testing.T) {
	_, _, model := load(t, "state.bin")
	value, err := os.ReadFile(filepath.Join(golden, "state-version-1.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if row := ReadState("u", value, model, 0, 0, false); row.Status != Invalid {
		t.Errorf("%s", row.Status)
	}
}

func TestEveryFlippedBitAndEveryCutIsInvalid(t *testing.T) {
	value, want, model := load(t, "state.bin")
	used := model.EmbeddingBytes() + want.Header.Length*model.slotBytes()
	for bit := 0; bit < 8*used; bit++ {
		damaged := append([]byte(nil), value...)
		damaged[bit/8] ^= 1 << (bit % 8)
		if row := ReadState("u", damaged, model, 0, 0, false); row.Status != Invalid {
			t.Fatalf("byte %d, bit %d: %s", bit/8, bit%8, row.Status)
		}
	}
	for n := 1; n < used; n++ {
		if row := ReadState("u", value[:n], model, 0, 0, false); row.Status != Invalid {
			t.Fatalf("the first %d bytes: %s", n, row.Status)
		}
	}
}

func TestAnotherModelIsInvalid(t *testing.T) {
	value, _, model := load(t, "state.bin")
	other, larger := model, model
	other.ID, larger.Layers = "ffffffffffffffff", 4
	for _, m := range []Model{other, larger} {
		if row := ReadState("u", value, m, 0, 0, false); row.Status != Invalid {
			t.Errorf("%s", row.Status)
		}
	}
}

func TestHalf(t *testing.T) {
	for bits, want := range map[uint16]float64{
		0x0000: 0, 0x0001: math.Ldexp(1, -24), 0x03ff: math.Ldexp(1023, -24), 0x0400: math.Ldexp(1, -14),
		0x3c00: 1, 0xb800: -0.5, 0x7bff: 65504, 0x7c00: math.Inf(1), 0x8001: -math.Ldexp(1, -24),
	} {
		if got := float64(half(bits)); got != want {
			t.Errorf("%04x: %g, want %g", bits, got, want)
		}
	}
	if got := half(0x7e00); got == got {
		t.Errorf("7e00: %g is a number", got)
	}
}
