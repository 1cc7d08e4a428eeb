package browser_test

import (
	"testing"

	"connectrpc.com/connect"

	"licensed/messages/licensedv1"
)

// TestDevices removes a device: first it is said what will end, then it ends.
func TestDevices(t *testing.T) {
	s := start(t, nil)
	s.life("Bayley")
	p := open(t, s.url("customer?id=Bayley"), wall)
	p.click(".tabs a:nth-child(2)")
	p.says(".devices", "allows downloads on 2 devices at a time. 2 are in use.")
	p.click(".device-list details summary")
	p.says(".device-list details[open]", "GlowS01E01")
	p.look("devices")

	p.click("[aria-label='Remove iphone']")
	p.says("h1", "Remove iphone of Bayley?")
	p.says(".ask", "This download ends")
	p.says(".downloads", "GlowS01E01")
	p.look("devices-remove")
	p.click(".ask a.button")
	p.says(".devices", "2 are in use")
	if active, err := s.devices("Bayley", "iphone"); err != nil || !active {
		t.Errorf("it was removed without a yes: %v", err)
	}

	p.click("[aria-label='Remove iphone']")
	p.says("h1", "Remove iphone of Bayley?")
	p.click("button.danger")
	p.says(".verdict", "iphone was removed; 1 download ended.")
	p.says(".devices", "1 is in use")
	p.look("devices-removed")
	if active, err := s.devices("Bayley", "iphone"); err != nil || active {
		t.Errorf("iphone is still active: %v", err)
	}

	// It is in the history, with what it ended.
	p.click(".tabs a:nth-child(1)")
	p.says(".events", "DeviceDeactivated")
	p.says(".where", "of 20")
}

// devices reports whether a device is active.
func (s *service) devices(customer, device string) (bool, error) {
	res, err := s.licenses.ListDevices(s.Context(),
		connect.NewRequest(&licensedv1.ListDevicesRequest{CustomerId: customer}))
	if err != nil {
		return false, err
	}
	for _, d := range res.Msg.Devices {
		if d.DeviceId == device {
			return d.Active, nil
		}
	}
	return false, nil
}
