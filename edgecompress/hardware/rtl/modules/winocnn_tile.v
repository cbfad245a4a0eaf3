// A WinoCNN tile: load the buffers, give the descriptor, pulse start; results come in the order of
// memory. Descriptor and bypass (1x1 mode) have to stay until busy and out_valid have ended.
module winocnn_tile #(
@PARAMETERS
) (
    input  wire                              clock,
    input  wire                              reset,
    input  wire                              start,
    input  wire                              bypass,
    input  wire [@DESCRIPTOR_TOP:0]                      descriptor,
    input  wire                              load_input,
    input  wire [7:0]                        load_image,
    input  wire [DOWN_LOG+ACROSS_LOG-1:0]    load_bank,
    input  wire                              load_kernel,
    input  wire [7:0]                        load_row,
    input  wire [15:0]                       load_address,
    input  wire [INPUT_BITS-1:0]             load_value,
    input  wire [CHANNELS*9*KERNEL_BITS-1:0] load_word,
    output wire                              busy,
    output reg                               out_valid,
    output reg  [OUTPUT_BITS-1:0]            out_value
);
    localparam TILE = OMEGA*OMEGA;
    localparam WIDE = COLUMNS*IMAGES;
    localparam VALUE_BITS = VALUE_FULL_BITS - VALUE_DROPPED;
    localparam FACTOR_BITS = FACTOR_FULL_BITS - FACTOR_DROPPED;

@DESCRIPTOR_WIRES

    wire        feed_valid, issue_valid, issue_swap, issue_first, store_valid;
    wire [15:0] feed_address, feed_row, feed_column, issue_kernel, issue_word;
    wire [15:0] store_word, store_row, store_column, store_slot;

    wino_control #(
        .OMEGA(OMEGA), .CHANNELS(CHANNELS), .ROWS(ROWS), .COLUMNS(COLUMNS), .IMAGES(IMAGES),
        .DRAIN_CLOCKS(ROWS + WIDE + 4)
    ) control (
        .clock(clock), .reset(reset), .start(start), .bypass(bypass), .busy(busy),
@DESCRIPTOR_CONNECTIONS
        .feed_valid(feed_valid), .feed_address(feed_address), .feed_row(feed_row),
        .feed_column(feed_column), .issue_valid(issue_valid), .issue_swap(issue_swap),
        .issue_first(issue_first), .issue_kernel(issue_kernel), .issue_word(issue_word),
        .store_valid(store_valid), .store_word(store_word), .store_row(store_row),
        .store_column(store_column), .store_slot(store_slot)
    );

    // Between the cells: tiles come from above, weights from the left.
    wire [COLUMNS*TILE*INPUT_BITS-1:0]    windows [0:IMAGES-1];
    wire [CHANNELS*TILE*VALUE_BITS-1:0]   values  [0:(ROWS+1)*WIDE-1];
    wire [CHANNELS*TILE*FACTOR_BITS-1:0]  factors [0:ROWS*(WIDE+1)-1];
    wire [17:0]                           issue   [0:ROWS*(WIDE+1)-1];
    wire [ROWS*WIDE*HELD_BITS-1:0]        stored;

    genvar m, n;
    generate
        for (n = 0; n < IMAGES; n = n + 1) begin : image
            wino_input_buffer #(
                .OMEGA(OMEGA), .COLUMNS(COLUMNS), .INPUT_BITS(INPUT_BITS), .WORDS(INPUT_WORDS),
                .DOWN_LOG(DOWN_LOG), .ACROSS_LOG(ACROSS_LOG)
            ) pixels (
                .clock(clock), .bypass(bypass), .load(load_input && load_image == n),
                .load_bank(load_bank), .load_address(load_address), .load_value(load_value),
                .set_words(set_words), .address(feed_address), .row(feed_row),
                .column(feed_column), .windows(windows[n])
            );
        end
        for (n = 0; n < WIDE; n = n + 1) begin : head
            wino_column #(
                .OMEGA(OMEGA), .CHANNELS(CHANNELS), .INPUT_BITS(INPUT_BITS),
                .FULL_BITS(VALUE_FULL_BITS), .DROPPED(VALUE_DROPPED), .COLUMN(n)
            ) column_head (
                .clock(clock), .reset(reset), .bypass(bypass), .feed(feed_valid),
                .swap(issue_swap),
                .window(windows[n/COLUMNS][(n%COLUMNS)*TILE*INPUT_BITS +: TILE*INPUT_BITS]),
                .values(values[n])
            );
        end
        for (m = 0; m < ROWS; m = m + 1) begin : row
            wino_row #(
                .OMEGA(OMEGA), .CHANNELS(CHANNELS), .KERNEL_BITS(KERNEL_BITS),
                .FULL_BITS(FACTOR_FULL_BITS), .DROPPED(FACTOR_DROPPED), .WORDS(KERNEL_WORDS),
                .ROW(m)
            ) row_head (
                .clock(clock), .reset(reset), .bypass(bypass),
                .load(load_kernel && load_row == m), .load_address(load_address),
                .load_word(load_word), .issue({issue_valid, issue_first, issue_word}),
                .issue_kernel(issue_kernel), .issue_now(issue[m*(WIDE+1)]),
                .factors(factors[m*(WIDE+1)])
            );
            for (n = 0; n < WIDE; n = n + 1) begin : column
                wino_cell #(
                    .OMEGA(OMEGA), .CHANNELS(CHANNELS), .EXACT(EXACT), .VALUE_BITS(VALUE_BITS),
                    .FACTOR_BITS(FACTOR_BITS), .SUM_DROPPED(SUM_DROPPED),
                    .SUM_BITS(SUM_BITS), .RESULT_BITS(RESULT_BITS), .HELD_BITS(HELD_BITS),
                    .RESULT_DROPPED(RESULT_DROPPED),
                    .BYPASS_RESULT_DROPPED(BYPASS_RESULT_DROPPED),
                    .BYPASS_RESULT_RAISED(BYPASS_RESULT_RAISED), .WORDS(OUTPUT_WORDS)
                ) element (
                    .clock(clock), .reset(reset), .bypass(bypass),
                    .values_in(values[m*WIDE + n]), .values_out(values[(m+1)*WIDE + n]),
                    .factors_in(factors[m*(WIDE+1) + n]),
                    .factors_out(factors[m*(WIDE+1) + n + 1]),
                    .issue_in(issue[m*(WIDE+1) + n]), .issue_out(issue[m*(WIDE+1) + n + 1]),
                    .store(store_valid), .store_word(store_word), .store_slot(store_slot),
                    .stored(stored[(m*WIDE + n)*HELD_BITS +: HELD_BITS])
                );
            end
        end
    endgenerate

    // One result a clock: read, then chosen and finished.
    reg                    store_now;
    reg  [15:0]            row_now, column_now;
    reg  [HELD_BITS-1:0]   sum;
    wire [OUTPUT_BITS-1:0] result;
    always @(*) begin : choose
        integer r, c;
        sum = {HELD_BITS{1'b0}};
        for (r = 0; r < ROWS; r = r + 1)
            for (c = 0; c < WIDE; c = c + 1)
                if (row_now == r[15:0] && column_now == c[15:0])
                    sum = sum | stored[(r*WIDE + c)*HELD_BITS +: HELD_BITS];
    end
    wino_finish #(.HELD_BITS(HELD_BITS), .OUTPUT_BITS(OUTPUT_BITS)) finish (
        .bypass(bypass), .sum(sum), .result(result)
    );
    always @(posedge clock) begin
        row_now    <= store_row;
        column_now <= store_column;
        out_value  <= result;
        store_now  <= store_valid && !reset;
        out_valid  <= store_now && !reset;
    end
endmodule
