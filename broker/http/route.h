//  route.h - which function serves which request
//
//  The table is in route.c; the functions lie where their subject is.

#ifndef LUNA_BROKER_HTTP_ROUTE_H
#define LUNA_BROKER_HTTP_ROUTE_H

#include "broker/http/exchange.h"

//  Sets x->route and x->id, or notes 404, or 405 with Allow.
void luna_route_find(luna_exchange *x, const char *url, const char *method);

//  submit.c
luna_err luna_route_submit(luna_exchange *x);

//  query.c
luna_err luna_route_queue_status(luna_exchange *x);
luna_err luna_route_jobs(luna_exchange *x);
luna_err luna_route_job(luna_exchange *x);
luna_err luna_route_cancel(luna_exchange *x);
luna_err luna_route_retry(luna_exchange *x);
luna_err luna_route_ready(luna_exchange *x);
luna_err luna_route_metrics(luna_exchange *x);

#endif
