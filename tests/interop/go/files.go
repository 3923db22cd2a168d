package main

import (
	"encoding/binary"
	"errors"
	"os"
)

var errFile = errors.New("this is no file of that kind")

// readIVF returns the frames of an IVF file.
func readIVF(path string) ([][]byte, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(file) < 32 || string(file[:4]) != "DKIF" {
		return nil, errFile
	}
	var frames [][]byte
	for rest := file[binary.LittleEndian.Uint16(file[6:]):]; len(rest) >= 12; {
		end := 12 + int(binary.LittleEndian.Uint32(rest))
		if end > len(rest) {
			return nil, errFile
		}
		frames = append(frames, rest[12:end])
		rest = rest[end:]
	}
	return frames, nil
}

// readOgg returns the packets of an Ogg file with Opus (RFC 3533 §6, RFC 7845 §3).
func readOgg(path string) ([][]byte, error) {
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var packets [][]byte
	var packet []byte
	for len(rest) >= 27 && string(rest[:4]) == "OggS" {
		lengths := rest[27 : 27+int(rest[26])]
		rest = rest[27+len(lengths):]
		for _, length := range lengths {
			packet = append(packet, rest[:length]...)
			rest = rest[length:]
			if length < 255 {
				packets = append(packets, packet)
				packet = nil
			}
		}
	}
	if len(packets) < 3 {
		return nil, errFile
	}
	// The first two describe the others.
	return packets[2:], nil
}
