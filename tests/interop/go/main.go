// One participant on the Go SDK, which keeps two connections, driven by lines of JSON.
//
//	participant URL TOKEN MEDIA
//
// MEDIA is the folder with face.ivf and hum.ogg, which it plays in a loop. Standard input takes one
// command a line, standard output answers each with one line:
//
//	{"do": "publish"}                      camera and microphone
//	{"do": "unpublish"}
//	{"do": "mute", "muted": true}          the microphone
//	{"do": "data", "text": "…", "topic": "…", "reliable": true}
//	{"do": "name", "text": "…"}
//	{"do": "metadata", "text": "…"}
//	{"do": "attributes", "attributes": {…}}
//	{"do": "resume"}                       loses its signal connection
//	{"do": "restart"}                      has the server forget it, and begins anew
//	{"do": "report"}                       what was received since the start
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

type command struct {
	Do         string            `json:"do"`
	Text       string            `json:"text"`
	Topic      string            `json:"topic"`
	Reliable   bool              `json:"reliable"`
	Muted      bool              `json:"muted"`
	Attributes map[string]string `json:"attributes"`
}

type message struct {
	Text  string `json:"text"`
	From  string `json:"from"`
	Topic string `json:"topic"`
}

// What is known of another participant, and what came of it since the start.
type other struct {
	Sid        string            `json:"sid"`
	Name       string            `json:"name"`
	Metadata   string            `json:"metadata"`
	Attributes map[string]string `json:"attributes"`
	Tracks     int               `json:"tracks"`
	Muted      bool              `json:"muted"`
	// Pictures that arrived whole, and packets of sound.
	Frames int `json:"frames"`
	Sounds int `json:"sounds"`
}

// By the identity of whom it is about.
type report struct {
	Others     map[string]other  `json:"others"`
	Keyframes  map[string]int    `json:"keyframes"`
	Codecs     map[string]string `json:"codecs"`
	Data       []message         `json:"data"`
	Events     []string          `json:"events"`
	Published  int               `json:"published"`
	MayPublish bool              `json:"mayPublish"`
}

type participant struct {
	mutex  sync.Mutex
	seen   report
	frames map[string]int
	sounds map[string]int
	room   *lksdk.Room
	stop   chan struct{}
	folder string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 4 {
		return errors.New("usage: participant URL TOKEN MEDIA")
	}
	it := &participant{folder: os.Args[3], frames: map[string]int{}, sounds: map[string]int{}}
	it.seen = report{
		Keyframes: map[string]int{},
		Codecs:    map[string]string{},
		Data:      []message{},
		Events:    []string{},
	}
	room, err := lksdk.ConnectToRoomWithToken(os.Args[1], os.Args[2], it.callbacks())
	if err != nil {
		return err
	}
	it.room = room
	say(map[string]any{"joined": room.SID()})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked command
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		answer, err := it.obey(asked)
		if err != nil {
			say(map[string]any{"ok": false, "error": err.Error()})
			continue
		}
		say(map[string]any{"ok": true, "answer": answer})
	}
	room.Disconnect()
	return lines.Err()
}

func say(answer map[string]any) {
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func (it *participant) note(event string, who lksdk.Participant) {
	it.mutex.Lock()
	defer it.mutex.Unlock()
	if who != nil {
		event += " " + who.Identity()
	}
	it.seen.Events = append(it.seen.Events, event)
}

func (it *participant) callbacks() *lksdk.RoomCallback {
	heard := lksdk.NewRoomCallback()
	heard.OnDisconnectedWithReason = func(why lksdk.DisconnectionReason) {
		it.note("disconnected", nil)
		it.note(string(why), nil)
	}
	heard.OnReconnecting = func() { it.note("reconnecting", nil) }
	heard.OnReconnected = func() { it.note("reconnected", nil) }
	heard.OnParticipantConnected = func(who *lksdk.RemoteParticipant) { it.note("came", who) }
	heard.OnParticipantDisconnected = func(who *lksdk.RemoteParticipant) { it.note("left", who) }
	heard.OnTrackMuted = func(_ lksdk.TrackPublication, who lksdk.Participant) { it.note("muted", who) }
	heard.OnTrackUnmuted = func(_ lksdk.TrackPublication, who lksdk.Participant) { it.note("unmuted", who) }
	heard.OnTrackUnsubscribed = func(_ *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, who *lksdk.RemoteParticipant) {
		it.note("unsubscribed", who)
	}
	heard.OnLocalTrackUnpublished = func(_ *lksdk.LocalTrackPublication, who *lksdk.LocalParticipant) {
		it.note("unpublished", who)
	}
	heard.OnDataPacket = func(packet lksdk.DataPacket, from lksdk.DataReceiveParams) {
		data, ok := packet.(*lksdk.UserDataPacket)
		if !ok {
			return
		}
		it.mutex.Lock()
		defer it.mutex.Unlock()
		it.seen.Data = append(it.seen.Data, message{string(data.Payload), from.SenderIdentity, data.Topic})
	}
	heard.OnTrackSubscribed = func(track *webrtc.TrackRemote, _ *lksdk.RemoteTrackPublication, who *lksdk.RemoteParticipant) {
		it.note("subscribed", who)
		go it.receive(track, who.Identity())
	}
	return heard
}

// receive counts what comes: sounds, and pictures that arrived whole.
func (it *participant) receive(track *webrtc.TrackRemote, from string) {
	video := track.Kind() == webrtc.RTPCodecTypeVideo
	var last *rtp.Packet
	whole := false
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		it.mutex.Lock()
		it.seen.Codecs[from+" "+track.Kind().String()] = track.Codec().MimeType
		if !video {
			it.sounds[from]++
			it.mutex.Unlock()
			continue
		}
		var vp8 codecs.VP8Packet
		payload, err := vp8.Unmarshal(packet.Payload)
		if err == nil && len(payload) > 0 {
			if vp8.S == 1 && vp8.PID == 0 {
				whole = true
				if payload[0]&1 == 0 {
					it.seen.Keyframes[from]++
				}
			} else if last != nil && packet.SequenceNumber != last.SequenceNumber+1 {
				whole = false
			}
			if packet.Marker && whole {
				it.frames[from]++
			}
		}
		last = packet
		it.mutex.Unlock()
	}
}

func (it *participant) obey(asked command) (any, error) {
	me := it.room.LocalParticipant
	switch asked.Do {
	case "publish":
		return nil, it.publish()
	case "unpublish":
		close(it.stop)
		for _, publication := range me.TrackPublications() {
			if err := me.UnpublishTrack(publication.SID()); err != nil {
				return nil, err
			}
		}
	case "mute":
		// After a new beginning the publications are others than those that were made.
		for _, publication := range me.TrackPublications() {
			if own, ok := publication.(*lksdk.LocalTrackPublication); ok && own.Kind() == lksdk.TrackKindAudio {
				own.SetMuted(asked.Muted)
			}
		}
	case "data":
		options := []lksdk.DataPublishOption{
			lksdk.WithDataPublishReliable(asked.Reliable),
			lksdk.WithDataPublishTopic(asked.Topic),
		}
		return nil, me.PublishDataPacket(lksdk.UserData([]byte(asked.Text)), options...)
	case "name":
		me.SetName(asked.Text)
	case "metadata":
		me.SetMetadata(asked.Text)
	case "attributes":
		me.SetAttributes(asked.Attributes)
	case "resume":
		it.room.Simulate(lksdk.SimulateSignalReconnect)
	case "restart":
		it.room.Simulate(lksdk.SimulateNodeFailure)
	case "report":
		return it.report(), nil
	default:
		return nil, fmt.Errorf("unknown command %q", asked.Do)
	}
	return nil, nil
}

func (it *participant) report() json.RawMessage {
	it.mutex.Lock()
	defer it.mutex.Unlock()
	it.seen.Others = map[string]other{}
	for _, them := range it.room.GetRemoteParticipants() {
		who := them.Identity()
		seen := other{
			Sid:        them.SID(),
			Name:       them.Name(),
			Metadata:   them.Metadata(),
			Attributes: them.Attributes(),
			Tracks:     len(them.TrackPublications()),
			Frames:     it.frames[who],
			Sounds:     it.sounds[who],
		}
		for _, track := range them.TrackPublications() {
			seen.Muted = seen.Muted || track.Kind() == lksdk.TrackKindAudio && track.IsMuted()
		}
		it.seen.Others[who] = seen
	}
	it.seen.Published = len(it.room.LocalParticipant.TrackPublications())
	it.seen.MayPublish = it.room.LocalParticipant.Permissions().GetCanPublish()
	text, err := json.Marshal(it.seen)
	if err != nil {
		panic(err)
	}
	return text
}

func (it *participant) publish() error {
	pictures, err := readIVF(filepath.Join(it.folder, "face.ivf"))
	if err != nil {
		return err
	}
	sounds, err := readOgg(filepath.Join(it.folder, "hum.ogg"))
	if err != nil {
		return err
	}
	it.stop = make(chan struct{})
	kinds := []struct {
		mime    string
		rate    uint32
		samples [][]byte
		each    time.Duration
		options lksdk.TrackPublicationOptions
	}{
		{webrtc.MimeTypeVP8, 90_000, pictures, 50 * time.Millisecond, lksdk.TrackPublicationOptions{Name: "camera", VideoWidth: 640, VideoHeight: 360}},
		{webrtc.MimeTypeOpus, 48_000, sounds, 20 * time.Millisecond, lksdk.TrackPublicationOptions{Name: "microphone"}},
	}
	for _, kind := range kinds {
		track, err := lksdk.NewLocalTrack(webrtc.RTPCodecCapability{MimeType: kind.mime, ClockRate: kind.rate})
		if err != nil {
			return err
		}
		if _, err := it.room.LocalParticipant.PublishTrack(track, &kind.options); err != nil {
			return err
		}
		go play(track, kind.samples, kind.each, it.stop)
	}
	return nil
}

// play writes samples at their pace, again and again.
func play(track *lksdk.LocalTrack, samples [][]byte, each time.Duration, stop chan struct{}) {
	ticker := time.NewTicker(each)
	defer ticker.Stop()
	for at := 0; ; at++ {
		select {
		case <-stop:
			return
		case <-ticker.C:
			sample := media.Sample{Data: samples[at%len(samples)], Duration: each}
			// A track that is not bound yet takes nothing, and misses nothing.
			_ = track.WriteSample(sample, nil)
		}
	}
}
