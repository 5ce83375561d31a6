//  connection.h - libmicrohttpd's callbacks

#ifndef LUNA_BROKER_HTTP_CONNECTION_H
#define LUNA_BROKER_HTTP_CONNECTION_H

#include "broker/http/exchange.h"

//  MHD_AccessHandlerCallback; `core` is a luna_http_core.
enum MHD_Result luna_connection_take(void *core, struct MHD_Connection *connection,
                                     const char *url, const char *method,
                                     const char *version, const char *upload_data,
                                     size_t *upload_data_size, void **exchange);

//  MHD_RequestCompletedCallback: frees the exchange.
void luna_connection_end(void *core, struct MHD_Connection *connection, void **exchange,
                         enum MHD_RequestTerminationCode why);

#endif
