package licensedv1

// Words returns the type of a device for people; "" if it is unspecified, and "device" for one of a newer release.
func (t DeviceType) Words() string {
	switch t {
	case DeviceType_DEVICE_TYPE_UNSPECIFIED:
		return ""
	case DeviceType_DEVICE_TYPE_PHONE:
		return "phone"
	case DeviceType_DEVICE_TYPE_TABLET:
		return "tablet"
	case DeviceType_DEVICE_TYPE_COMPUTER:
		return "computer"
	case DeviceType_DEVICE_TYPE_TV:
		return "TV"
	case DeviceType_DEVICE_TYPE_SET_TOP_BOX:
		return "set-top box"
	case DeviceType_DEVICE_TYPE_CONSOLE:
		return "console"
	default:
		return "device"
	}
}

// Words returns how sentences name the device: "Anna's iPad (ipad-7)", or its id if it has no name.
func (l *DeviceLabel) Words() string {
	if l.GetDeviceName() == "" {
		return l.GetDeviceId()
	}
	return l.GetDeviceName() + " (" + l.GetDeviceId() + ")"
}

// DeviceWords returns how sentences name a device, by the labels that are known.
func DeviceWords(labels []*DeviceLabel, id string) string {
	for _, l := range labels {
		if l.GetDeviceId() == id {
			return l.Words()
		}
	}
	return id
}
