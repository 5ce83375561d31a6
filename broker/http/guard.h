//  guard.h - who may ask at all
//
//  A page of another site, opened in the user's browser, can send requests to
//  loopback. Without a token, therefore, Host must name loopback (DNS rebinding) and
//  Origin, where there is one, too (cross-site requests). With a token nothing but
//  the token counts.

#ifndef LUNA_BROKER_HTTP_GUARD_H
#define LUNA_BROKER_HTTP_GUARD_H

#include "broker/http/exchange.h"

//  Notes 401 or 403 as the exchange's problem when the request must not be served.
void luna_guard(luna_exchange *x, const char *url);

#endif
