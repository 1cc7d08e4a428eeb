package client

import (
	"context"

	"licensed/messages/licensedv1"
)

// AcquireLicense gives a device a licence to a title for the licence period. One that is active is returned unchanged.
func (c *Client) AcquireLicense(
	ctx context.Context, m *licensedv1.AcquireLicenseRequest,
) (*licensedv1.AcquireLicenseResponse, error) {
	return c.licenses.AcquireLicense(ctx, m)
}

// RenewLicense moves the expiry of a licence to a full period from now.
func (c *Client) RenewLicense(
	ctx context.Context, m *licensedv1.RenewLicenseRequest,
) (*licensedv1.RenewLicenseResponse, error) {
	return c.licenses.RenewLicense(ctx, m)
}

// ReleaseLicense ends a licence. Releasing one that is released changes nothing.
func (c *Client) ReleaseLicense(
	ctx context.Context, m *licensedv1.ReleaseLicenseRequest,
) (*licensedv1.ReleaseLicenseResponse, error) {
	return c.licenses.ReleaseLicense(ctx, m)
}

// RecordPlayback records that a downloaded title was played.
func (c *Client) RecordPlayback(
	ctx context.Context, m *licensedv1.RecordPlaybackRequest,
) (*licensedv1.RecordPlaybackResponse, error) {
	return c.licenses.RecordPlayback(ctx, m)
}

// DeactivateDevice removes a device and releases every active licence on it.
func (c *Client) DeactivateDevice(
	ctx context.Context, m *licensedv1.DeactivateDeviceRequest,
) (*licensedv1.DeactivateDeviceResponse, error) {
	return c.licenses.DeactivateDevice(ctx, m)
}

// LendAllowance reserves downloads for a device, so that the gateway can grant them while the owner is unavailable.
func (c *Client) LendAllowance(
	ctx context.Context, m *licensedv1.LendAllowanceRequest,
) (*licensedv1.LendAllowanceResponse, error) {
	return c.licenses.LendAllowance(ctx, m)
}

// ReturnAllowance hands back what is left of an allowance.
func (c *Client) ReturnAllowance(
	ctx context.Context, m *licensedv1.ReturnAllowanceRequest,
) (*licensedv1.ReturnAllowanceResponse, error) {
	return c.licenses.ReturnAllowance(ctx, m)
}

// SelectDevices chooses the devices that stay when the plan is, or will be, exceeded.
func (c *Client) SelectDevices(
	ctx context.Context, m *licensedv1.SelectDevicesRequest,
) (*licensedv1.SelectDevicesResponse, error) {
	return c.licenses.SelectDevices(ctx, m)
}

// GrantException lets the customer deviate from the rules. It is for operators, and for support with a reason.
func (c *Client) GrantException(
	ctx context.Context, m *licensedv1.GrantExceptionRequest,
) (*licensedv1.GrantExceptionResponse, error) {
	return c.licenses.GrantException(ctx, m)
}

// WithdrawException ends an exception, other than the merge of a device.
func (c *Client) WithdrawException(
	ctx context.Context, m *licensedv1.WithdrawExceptionRequest,
) (*licensedv1.WithdrawExceptionResponse, error) {
	return c.licenses.WithdrawException(ctx, m)
}

// ChangePlan moves the customer to another plan. A smaller plan ends no licence, and fixes which devices stay.
func (c *Client) ChangePlan(
	ctx context.Context, m *licensedv1.ChangePlanRequest,
) (*licensedv1.ChangePlanResponse, error) {
	return c.licenses.ChangePlan(ctx, m)
}

// SyncDevice records what happened on a device while it was offline. The device can drop its facts up to the number in
// the response, which is 0 in a provisional one.
func (c *Client) SyncDevice(
	ctx context.Context, m *licensedv1.SyncDeviceRequest,
) (*licensedv1.SyncDeviceResponse, error) {
	return c.licenses.SyncDevice(ctx, m)
}

// ListLicenses returns a page of the customer's licences, the active ones unless include_inactive is set. As of all
// questions, an answer that may be out of date is returned only if the request has MaxStaleness; it then has Stale.
func (c *Client) ListLicenses(
	ctx context.Context, m *licensedv1.ListLicensesRequest,
) (*licensedv1.ListLicensesResponse, error) {
	return c.licenses.ListLicenses(ctx, m)
}

// ListDownloads returns a page of the downloads and counted playbacks of a title, and whether another download is
// allowed now. Without a title it returns those of all titles.
func (c *Client) ListDownloads(
	ctx context.Context, m *licensedv1.ListDownloadsRequest,
) (*licensedv1.ListDownloadsResponse, error) {
	return c.licenses.ListDownloads(ctx, m)
}

// GetCustomer returns a page of all that is accounted for the customer.
func (c *Client) GetCustomer(
	ctx context.Context, m *licensedv1.GetCustomerRequest,
) (*licensedv1.GetCustomerResponse, error) {
	return c.licenses.GetCustomer(ctx, m)
}

// ListDevices returns a page of the customer's devices, and the limit of the plan.
func (c *Client) ListDevices(
	ctx context.Context, m *licensedv1.ListDevicesRequest,
) (*licensedv1.ListDevicesResponse, error) {
	return c.licenses.ListDevices(ctx, m)
}
